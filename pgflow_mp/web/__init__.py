"""The web page: what runs, waits and failed, drawn on the server and kept up to date while somebody looks.

``application.py`` puts it together, ``guard.py`` decides who may ask for what, ``live_updates.py`` looks into
the database once for all who look at the same page, ``views/`` has a module for each subject. No SQL and no
sums here: the structs of ``observe`` are drawn as they are.
"""
