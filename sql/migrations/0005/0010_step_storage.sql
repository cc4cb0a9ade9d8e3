-- How a map's items are stored (ours): "tasks" is the contract's row and message an item, "ranges" is one row
-- for many. NULL is "tasks"; what is here already keeps it. batch: items that a handler is given at once.
-- barrier: false lets a map over a map in ranges begin with what its parent has done.
alter table pgflow.step_policies
  add column storage text constraint storage_is_known check (storage in ('tasks', 'ranges')),
  add column batch int constraint batch_is_positive check (batch > 0),
  add column barrier boolean;
