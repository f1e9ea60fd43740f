"""The training side: configuration, the plan of a run, filters, schedules and the loop."""
