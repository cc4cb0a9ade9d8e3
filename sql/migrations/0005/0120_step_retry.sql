-- What becomes of one step of a run when failed items are tried again (functions/0353_plan_retry.sql).
create type pgflow.step_retry as (
  step_slug text,
  status text, -- before
  items int,
  chosen int[], -- the failed items that are tried again
  goes_on boolean, -- so does what was not finished, since the run had failed, or the step was skipped
  unfinished int, -- how many items that is
  done int, -- items that are completed and stay so
  kept int, -- items that failed and stay so
  most int, -- so many the step tolerates
  was_given boolean, -- others were given the chosen items, as null
  is_reset boolean -- the step is computed again, as it follows from such
);
