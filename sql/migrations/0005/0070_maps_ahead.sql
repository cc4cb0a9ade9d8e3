-- Whoever records results looks for maps that began ahead of their end: where there are none this tells it at once,
-- however many versions of the maps' rows an open transaction keeps.
create index idx_range_maps_source on pgflow.range_maps (run_id, source_step) where source_step is not null;
