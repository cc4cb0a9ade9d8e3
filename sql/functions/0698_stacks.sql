-- Ours: asking workers where their code is. A question is a row, which the worker finds, told of it by NOTIFY.

-- Asks these workers, as far as they are alive; a question of the same role that waits for its answer is not put again.
-- Questions and answers of more than ten minutes ago are forgotten.
create or replace function pgflow.ask_stacks(worker_ids uuid[])
returns table (worker_id uuid, question_id uuid)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_queues text[] := pgflow._granted_queues('ask_stacks');
  v_role name := coalesce(nullif(current_setting('role'), 'none'), session_user);
begin
  delete from pgflow.stack_questions q
  where q.question_id = any (array(
    select o.question_id from pgflow.stack_questions o
    where o.asked_at < clock_timestamp() - interval '10 minutes'
    order by o.question_id
    for update skip locked
  ));
  insert into pgflow.stack_questions (worker_id, role_name)
  select w.worker_id, v_role
  from pgflow.workers w
  where w.worker_id = any (ask_stacks.worker_ids[1:1000])
    and pgflow._is_alive(w)
    and (v_queues is null or lower(w.queue_name) = any (v_queues))
    and not exists (
      select 1 from pgflow.stack_questions q
      where q.worker_id = w.worker_id and q.answered_at is null and q.role_name = v_role
    );
  perform pg_notify('pgflow_stacks', '');
  return query
  select distinct on (q.worker_id) q.worker_id, q.question_id
  from pgflow.stack_questions q
  where q.worker_id = any (ask_stacks.worker_ids[1:1000]) and q.answered_at is null and q.role_name = v_role
  order by q.worker_id, q.asked_at;
end;
$$;

-- What these workers are asked and have not answered.
create or replace function pgflow.open_stack_questions(worker_ids uuid[])
returns setof uuid
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select q.question_id
  from pgflow.stack_questions q
  join pgflow.workers w on w.worker_id = q.worker_id
  where q.worker_id = any (open_stack_questions.worker_ids)
    and q.answered_at is null
    and coalesce(lower(w.queue_name) = any ((select pgflow._granted_queues('open_stack_questions'))::text[]), true)
  order by q.asked_at
  limit 10;
$$;

-- The answer of a worker, once: {"lanes": [{"lane", "pid", "run", "step", "index", "seconds", "note", "frames"}, ...],
-- "threads": [{"name", "frames"}, ...]}, at most two megabytes.
create or replace function pgflow.answer_stacks(question_id uuid, answer jsonb)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_queues text[] := pgflow._granted_queues('answer_stacks');
begin
  if octet_length(answer_stacks.answer::text) > 2000000 then
    raise exception 'An answer of % bytes is too large', octet_length(answer_stacks.answer::text)
      using errcode = 'program_limit_exceeded';
  end if;
  update pgflow.stack_questions q
  set answered_at = clock_timestamp(), answer = answer_stacks.answer
  where q.question_id = answer_stacks.question_id
    and q.answered_at is null
    and exists (
      select 1 from pgflow.workers w
      where w.worker_id = q.worker_id and (v_queues is null or lower(w.queue_name) = any (v_queues))
    );
  return found;
end;
$$;

-- Answers to questions of the caller's, as far as they are there. A role that is limited to some flows sees of lanes
-- that work for others, or for none, no more than that there are such, and nothing of the worker's own threads.
create or replace function pgflow.stack_answers(question_ids uuid[])
returns table (question_id uuid, answer jsonb)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_flows text[] := pgflow._granted_flows('stack_answers');
  v_role name := coalesce(nullif(current_setting('role'), 'none'), session_user);
begin
  return query
  select q.question_id,
    case
      when v_flows is null then q.answer
      else jsonb_build_object(
        'threads', '[]'::jsonb,
        'lanes', coalesce(
          (
            select jsonb_agg(
              case
                when exists (
                  select 1 from pgflow.runs r
                  where r.run_id::text = l.lane ->> 'run' and r.flow_slug = any (v_flows)
                ) then l.lane
                when l.lane ->> 'run' is null
                  then jsonb_build_object('lane', l.lane -> 'lane', 'note', 'idle, or not yet at work')
                else jsonb_build_object('lane', l.lane -> 'lane', 'note', 'works for another flow')
              end
              order by l.n
            )
            from jsonb_array_elements(
              case when jsonb_typeof(q.answer -> 'lanes') = 'array' then q.answer -> 'lanes' else '[]' end
            ) with ordinality l (lane, n)
          ),
          '[]'
        )
      )
    end
  from pgflow.stack_questions q
  where q.question_id = any (stack_answers.question_ids) and q.answered_at is not null and q.role_name = v_role;
end;
$$;
