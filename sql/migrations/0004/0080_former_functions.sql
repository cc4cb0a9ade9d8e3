-- Functions whose arguments are others now, and those that others took the place of.
drop function if exists pgflow.track_worker_function(text);
drop function if exists pgflow._create_flow_from_shape(text, jsonb);
drop function if exists pgflow.ensure_flow_compiled(text, jsonb, boolean);
drop function if exists pgflow._create_queue(text);
drop function if exists pgflow._claim(text, bigint[], uuid);
drop function if exists pgflow._take_messages(text, bigint[], int, int);
drop function if exists pgflow._take_messages(text, bigint[], int, int, bigint[]);
drop function if exists pgflow._read_fairly(text, int, int);
drop function if exists pgflow._read_fairly(text, int, int, bigint[]);
drop function if exists pgflow._suspects(text, uuid, int, int);
drop function if exists pgflow._tasks_held(text, uuid[]);
drop function if exists pgflow._claim(text, bigint[], uuid, bigint, boolean);
drop function if exists pgflow._put_messages_back(text, bigint[]);
drop function if exists pgflow._next_messages(text, uuid, int, int);
drop function if exists pgflow._require_own_queue(text);
drop function if exists pgflow._archive_open_messages(uuid, text[]);
drop function if exists pgflow._archive_task_messages(text, uuid, text, int[]);
