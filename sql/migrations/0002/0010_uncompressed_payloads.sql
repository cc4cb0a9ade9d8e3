-- Payloads are stored as they are. PostgreSQL would compress each one of over 2 kB, and the arrays of all
-- of them, with pglz: of 10 kB of text that an item receives and returns, three quarters of the server's
-- time went there, time that the lanes need. The disk holds up to twice as much for it.
alter table pgflow.runs
  alter column input set storage external,
  alter column output set storage external;
alter table pgflow.step_states
  alter column output set storage external;
alter table pgflow.step_tasks
  alter column input set storage external,
  alter column output set storage external;
