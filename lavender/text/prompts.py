"""Prompts before a text, by task (paper, section 3.2; wording of the released code)."""

PROMPTS = {
    "vtm": "is the video-text paired, true or false?",
    "retmc": "is the video-text matched, true or false?",
    "mc": "which answer is correct, from {options}?",  # options: [0, 1, 2, 3, 4]
    "oe": "answer the question about the video.",
    "cap": "write a description about the video.",
    "fib": "fill in the mask to complete the sentence.",
}
