"""Pure measures: scores with intervals, paired tests, calibration, confusion, churn. numpy in, numbers out."""
