// How much of a long run is useful when devices fail.
//
// Failures are independent and exponential, so a job on n devices fails every M = device MTBF / n.
// It writes a checkpoint of C seconds after every T seconds of work; after a failure R seconds pass
// before work goes on from the last one (which may fail again). The mean time of one interval is
//
//   W(T) = M e^(R/M) (e^((T+C)/M) - 1)          goodput = T / W(T)
//
// (J. T. Daly, A higher order estimate of the optimum checkpoint interval, 2006). The best interval
// solves e^((T+C)/M) (1 - T/M) = 1, near sqrt(2 C M), whatever R is. All times in seconds.
#pragma once

namespace minke {

struct FailureModel {
  double mtbf_s = 0;        // of the whole job
  double checkpoint_s = 0;  // that work stands still for one checkpoint
  double restart_s = 0;     // from a failure, unnoticed, to the next useful step
};

// Mean time between failures of a job on n devices.
double job_mtbf_s(double device_mtbf_hours, double devices);

// Share of the wall clock that is useful work, 0 to 1. Throws ConfigError when a time is not
// positive (checkpoint and restart may be 0).
double goodput(const FailureModel& model, double interval_s);

// The interval with the best goodput; 0 when checkpoints cost nothing.
double best_interval_s(const FailureModel& model);

// Failures expected in that much wall clock.
double expected_failures(const FailureModel& model, double wall_s);

}  // namespace minke
