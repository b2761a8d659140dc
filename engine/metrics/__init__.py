"""Pure measures: accuracy with interval, calibration, confusion, churn. numpy in, numbers out."""
