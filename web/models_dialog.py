"""The dialog with more models: those at an address, files on this device, and what is stored.

Runs on MicroPython and on Pyodide.
"""

from chat_view import add, element

from py_engine.errors import MLCError
from py_engine.model_cache import delete_model_all_info_in_cache, list_models_in_cache
from py_engine.storage.picked import local_address, picked_entries


def open_models_dialog():
    """Show the dialog, with the field for an address at hand."""
    element("models-dialog").showModal()
    element("address").focus()


def close_models_dialog():
    """Close the dialog and empty its fields."""
    element("models-dialog").close()
    for name in ("address", "pick-files", "pick-folder"):
        element(name).value = ""


def written_record():
    """Return a record of the model whose address is written in the dialog."""
    address = element("address").value.strip()
    return {"model": address, "model_id": address}


def picked_record(field):
    """Return a record of the files picked in an input of the dialog, its name, and the files.

    The name is that of the folder, or of the first file.
    """
    files = field.files
    first = files.item(0)
    path = first.webkitRelativePath or first.name
    name = path.split("/")[0]
    address = local_address(name)
    return {"model": address, "model_id": address}, name, picked_entries(files)


async def show_stored(engine):
    """List the models that the browser has stored, each with a button that deletes it."""
    models = await list_models_in_cache(engine=engine)
    stored = element("stored")
    stored.replaceChildren()
    for model in models:
        name = model.model_ids[0] if model.model_ids else model.url
        row = add(stored, "li")
        add(row, "span", name)
        add(row, "span", stored_size(model), "quiet")
        button = add(row, "button", "Delete")
        button.type = "button"
        button.value = model.url
        button.setAttribute("aria-label", f"Delete {name}")
    total = sum(model.stored_bytes for model in models)
    note = f"{total / 1e6:.1f} MB in all." if models else "Nothing yet."
    element("stored-note").textContent = note


def stored_size(model):
    """Return how much of a model is stored."""
    if model.is_complete:
        return f"{model.stored_bytes / 1e6:.1f} MB"
    return f"{model.stored_bytes / 1e6:.1f} of {model.total_bytes / 1e6:.1f} MB"


async def delete_stored(engine, url):
    """Delete the stored files of the model at an address, and show what is left."""
    element("stored-note").textContent = "Deleting…"
    try:
        await delete_model_all_info_in_cache(url, engine=engine)
        await show_stored(engine)
    except MLCError as error:
        element("stored-note").textContent = str(error)
    element("address").focus()
