-- set_vt_batch (contract section 13.1).
create or replace function pgflow.set_vt_batch(queue_name text, msg_ids bigint[], vt_offsets int[])
returns table (
  msg_id bigint,
  read_ct int,
  enqueued_at timestamptz,
  vt timestamptz,
  message jsonb,
  headers jsonb
)
language plpgsql
rows 100
set search_path = ''
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  if msg_ids is null or vt_offsets is null or cardinality(msg_ids) = 0 or cardinality(vt_offsets) = 0 then
    return;
  end if;
  if cardinality(msg_ids) <> cardinality(vt_offsets) then
    raise exception 'msg_ids length (%) must equal vt_offsets length (%)',
      cardinality(msg_ids), cardinality(vt_offsets);
  end if;

  return query execute format(
    $query$
      update pgmq.%I q
      set vt = clock_timestamp() + make_interval(secs => i.seconds)
      from (
        select u.id, u.seconds from unnest($1, $2) u (id, seconds) order by u.id
      ) i
      where q.msg_id = i.id
      returning q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message, q.headers
    $query$,
    pgmq.format_table_name(queue_name, 'q')
  ) using msg_ids, vt_offsets;
end;
$$;
