"""Generations that survive their tab: what they consist of is journaled in the browser's storage.

`engine.list_resumable_sessions()`, `resume_chat_completion` and `delete_resumable_session` are in
`sessions.py`; `replies.py` records a running generation; `journal.py` has the file's format.
"""
