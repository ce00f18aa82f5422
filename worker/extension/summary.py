"""The request for a summary of a page, cut to what the model can read.

Runs on CPython, Pyodide and MicroPython.
"""

ANSWER_TOKENS = 256
# Few texts have more; what is longer is cut before its tokens are counted.
CHARACTERS_PER_TOKEN = 12


def summary_messages(title, text):
    """Return the messages that ask for a summary."""
    return [
        {
            "role": "user",
            "content": f"Summarise this page in a few sentences.\n\nTitle: {title}\n\n{text}",
        }
    ]


async def cut_to_fit(count_tokens, title, text, context_window_size):
    """Return `text`, or as much of its beginning as leaves ANSWER_TOKENS of the context window.

    `await count_tokens(messages)` tells how many tokens a prompt has.
    """
    limit = context_window_size - ANSWER_TOKENS
    text = text[: limit * CHARACTERS_PER_TOKEN]
    while text:
        tokens = await count_tokens(summary_messages(title, text))
        if tokens <= limit:
            break
        text = text[: min(len(text) * limit // tokens, len(text) - 1)]
    return text
