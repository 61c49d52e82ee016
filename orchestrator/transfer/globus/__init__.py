"""Transfers between Globus collections: `globus://COLLECTION_ID/path`.

place.py     where: the address, and what is listed there before and after
session.py   who: the client of the settings, its tokens, and what a refusal of Globus means
notes.py     what was asked, on the disk under its token before Globus hears of it
verdict.py   a task as Globus describes it → the state of the transfer; pure
transfer.py  the back end that puts these together
"""
