"""What is read of the database for people, by subject: typed functions that change nothing.

Connections are as in ``db.engine``. What a role may read depends on what it was granted
(``pgflow.grant_access``, contract sql section 15); each function works

- for everybody with any access but "client": those that read tables where the role may, and else call what
  "starter", "operator" and "worker" were granted all alike;
- for everybody in that way, with less to tell, where it says so: what no granted function knows is missing;
- for the schema's owner only, where it says so: there is no function to grant.

Whoever has less gets psycopg's InsufficientPrivilege. A role that is limited to some flows sees nothing of
others: they are unknown to it.
"""
