-- pgflow.step_tasks.condemned is false for a task that workers died with often enough, but the last time beside
-- something else: it has to be run alone.
drop function if exists pgflow._take_over_run(text, uuid, text[], int[], uuid[], uuid[]);
