"""What people look at: report, live view, trace and terminal progress, made from a run folder."""
