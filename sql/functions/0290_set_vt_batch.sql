-- Visibility timeouts of many messages (contract section 13.1).

-- Sets when each of these messages of a queue is seen again, in seconds from now; answers them.
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
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_rows tid[];
begin
  if msg_ids is null or vt_offsets is null or cardinality(msg_ids) = 0 or cardinality(vt_offsets) = 0 then
    return;
  end if;
  if cardinality(msg_ids) <> cardinality(vt_offsets) then
    raise exception 'msg_ids length (%) must equal vt_offsets length (%)',
      cardinality(msg_ids), cardinality(vt_offsets);
  end if;

  -- Locked by one statement, changed by the next: see _claim. An update that joins by msg_id would read the
  -- whole queue where its statistics are those of an empty one.
  execute format(
    $query$
      select array_agg(l.row_id order by i.n)
      from (select u.id, u.n from unnest($1) with ordinality u (id, n) order by u.id) i
      left join lateral (
        select q.ctid as row_id from pgmq.%I q where q.msg_id = i.id for update
      ) l on true
    $query$,
    pgmq.format_table_name(queue_name, 'q')
  ) into v_rows using msg_ids;

  return query execute format(
    $query$
      update pgmq.%I q
      set vt = clock_timestamp() + make_interval(secs => i.seconds)
      from unnest($1, $2) i (row_id, seconds)
      where q.ctid = i.row_id
      returning q.msg_id, q.read_ct, q.enqueued_at, q.vt, q.message, q.headers
    $query$,
    pgmq.format_table_name(queue_name, 'q')
  ) using v_rows, vt_offsets;
end;
$$;

-- The same for messages of several queues.
create or replace function pgflow._set_vt(queue_names text[], msg_ids bigint[], vt_offsets int[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_queue record;
begin
  for v_queue in
    select m.queue_name, array_agg(m.id) as ids, array_agg(m.seconds) as seconds
    from unnest(queue_names, msg_ids, vt_offsets) m (queue_name, id, seconds)
    where m.id is not null
    group by m.queue_name
    order by m.queue_name
  loop
    perform pgflow.set_vt_batch(v_queue.queue_name, v_queue.ids, v_queue.seconds);
  end loop;
end;
$$;
