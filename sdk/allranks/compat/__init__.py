"""Other trackers' interfaces over allranks, so that a script written for one of them runs with one changed import."""
