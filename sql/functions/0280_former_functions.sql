-- Ours: functions that have more parameters now. Beside what took their place a call with fewer of them would find two.
drop function if exists pgflow._suspects(text, text, uuid, int, int, text[], uuid[]);
drop function if exists pgflow._next_messages(text, text, text, uuid, int, int, text[], uuid[]);
drop function if exists pgflow._claim_next(text, text, uuid, int, int, boolean);
drop function if exists pgflow._claim_ranges(text, text, uuid, int, bigint[], text[], boolean, uuid[]);
drop function if exists pgflow._next_messages_within(
  text, text, text, uuid, int, int, text[], uuid[], text[], int[]
);
drop function if exists pgflow._claim_within_limits(
  text, text, text, uuid, int, int, bigint[], int, text[], uuid[], int, bigint, boolean
);
