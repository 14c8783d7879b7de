"""Speech: additive Fields on recordings, against keyword classifiers and CTC recognisers."""
