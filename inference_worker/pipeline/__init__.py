"""Work beside a model: stages on threads or processes of their own, joined to the runner by bounded channels."""
