"""python -m lavender.demo"""

from lavender.demo.tour import main

if __name__ == "__main__":
    main()
