"""Thinking

What a model thinks before it answers comes apart from the answer.

Section: Control
WebLLM: qwen3
Docs: tools.md
"""

from py_engine import create_web_worker_mlc_engine

# Models such as "Qwen3-0.6B-q4f16_1-MLC" think by themselves, and do not with
# `enable_thinking=False`. This site's own never learnt to, so a format makes it.
THINK_FIRST = {
    "type": "regex",
    "regex": "<think>\n7 plus 5 is [A-Za-z0-9 ,.]{2,60}\n</think>\n\n[A-Za-z0-9 ,.'+=]{2,60}",
}

engine = await create_web_worker_mlc_engine(model_id="Llama-Storyteller-7M-q4f16_1-MLC")
stream = await engine.chat.completions.create(
    messages=[{"role": "user", "content": "What is 7 plus 5?"}],
    response_format=THINK_FIRST,
    temperature=0,
    stream=True,
)
print("Thoughts: ", end="")
is_thinking = True
async for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.reasoning_content or "", end="")
        if choice.delta.content:
            if is_thinking:
                print("\n\nAnswer: ", end="")
            is_thinking = False
            print(choice.delta.content, end="")
