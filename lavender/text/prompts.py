"""The prompts in front of a text, by task (paper, section 3.2; wording of the released code)."""

PROMPTS = {
    "vtm": "is the video-text paired, true or false?",
}
