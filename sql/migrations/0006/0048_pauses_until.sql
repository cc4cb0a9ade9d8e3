-- When a pause is over by itself; NULL: never, somebody ends it.
alter table pgflow.pauses add column until timestamptz;

-- Functions whose arguments or columns are others now.
drop function if exists pgflow.pause_flow(text, text);
drop function if exists pgflow.pause_run(uuid, text);
drop function if exists pgflow.list_pauses();
drop function if exists pgflow.list_runs(text, text[], timestamptz, timestamptz, text[], text, timestamptz, uuid, int);
drop function if exists pgflow.run_report(uuid);
drop function if exists pgflow._run_marks(uuid, text, text, timestamptz);
