-- Questions to workers about what their code is doing, and the answers: kept for minutes (functions/0698_stacks.sql).
-- role_name: who asked, and may read the answer.
create table pgflow.stack_questions (
  question_id uuid not null default gen_random_uuid() constraint stack_questions_pkey primary key,
  worker_id uuid not null,
  role_name name not null,
  asked_at timestamptz not null default clock_timestamp(),
  answered_at timestamptz,
  answer jsonb
);
create index idx_stack_questions_open on pgflow.stack_questions (worker_id) where answered_at is null;
