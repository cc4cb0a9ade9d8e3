-- A minimal queue in plain SQL, the yardstick of gate.py: it must never change.
-- One table, one row an item; set-based enqueue, claim and complete; results stored.

create table baseline_items (
  id bigint generated always as identity primary key,
  payload jsonb not null,
  status text not null default 'queued',
  result jsonb
);

create index baseline_queued on baseline_items (id) where status = 'queued';

create function baseline_enqueue(items jsonb) returns bigint
language sql as $$
  with new as (
    insert into baseline_items (payload)
    select value from jsonb_array_elements(items)
    returning 1
  )
  select count(*) from new;
$$;

create function baseline_claim(quantity int) returns table (id bigint, payload jsonb)
language sql as $$
  update baseline_items i
  set status = 'started'
  where i.id in (
    select q.id from baseline_items q
    where q.status = 'queued'
    order by q.id
    limit quantity
    for update skip locked
  )
  returning i.id, i.payload;
$$;

create function baseline_complete(ids bigint[], results jsonb[]) returns void
language sql as $$
  update baseline_items i
  set status = 'completed', result = r.result
  from unnest(ids, results) r (id, result)
  where i.id = r.id;
$$;
