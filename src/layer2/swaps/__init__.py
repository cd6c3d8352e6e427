"""The swap engine: states, observations, effects, one file of decisions per role and direction, deadlines, driver."""
