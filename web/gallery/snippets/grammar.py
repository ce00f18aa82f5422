"""Grammar and regular expression

Bind the answer to an EBNF grammar, or to a regular expression.

Section: Answers of a given form
WebLLM: json-schema
Docs: structured-output.md
"""

from py_engine import create_web_worker_mlc_engine

POEM = r"""
root ::= line line line
line ::= word " " word " " word "\n"
word ::= [a-z]{2,8}
"""

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "Write a poem about the sea."}],
    response_format={"type": "grammar", "grammar": POEM},
)
print(reply.choices[0].message.content)

reply = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "When do you get up?"}],
    response_format={"type": "regex", "regex": "At (0?[5-9]|1[0-2]):[0-5][0-9] o'clock\\."},
)
print(reply.choices[0].message.content)
