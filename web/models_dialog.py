"""The dialog with more models: those at an address, and files on this device.

Runs on MicroPython and on Pyodide.
"""

from chat_view import element

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
