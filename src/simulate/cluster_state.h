// The simulator's own books: what instances and requests physically do. Used by simulator.cc alone.
#pragma once

#include <queue>
#include <vector>

#include "simulate/simulator.h"

namespace switchyard::simulate {

inline TimePoint at(Nanos time) { return TimePoint(time); }

inline Nanos milliseconds(double value) { return Nanos(static_cast<std::int64_t>(value * 1e6)); }

enum class EventKind { arrival, cancel, failure, instance_up, load_done, prefill_done, step_done, kv_done };

struct Event {
  Nanos time;
  std::uint64_t sequence;  // breaks ties: first come, first served
  EventKind kind;
  std::uint64_t subject;  // request, instance or index
  std::uint64_t version;  // of the subject's work; older ones are void

  bool operator>(const Event& other) const {
    return time != other.time ? time > other.time : sequence > other.sequence;
  }
};

class EventQueue {
 public:
  void push(Nanos time, EventKind kind, std::uint64_t subject, std::uint64_t version = 0) {
    queue_.push({time, sequence_++, kind, subject, version});
  }
  bool empty() const { return queue_.empty(); }
  Event pop() {
    const Event event = queue_.top();
    queue_.pop();
    return event;
  }

 private:
  std::priority_queue<Event, std::vector<Event>, std::greater<>> queue_;
  std::uint64_t sequence_ = 0;
};

// What policies reckon with here is what happens.
class SimulatedCosts : public schedule::Costs {
 public:
  SimulatedCosts(const std::vector<SimulatedModel>& models, const Cluster& cluster)
      : models_(models), cluster_(cluster) {}

  Nanos prefill(schedule::ModelId model, schedule::InstanceId, std::uint64_t tokens) const override {
    return milliseconds(models_[model].times.prefill(tokens));
  }
  Nanos step(schedule::ModelId model, schedule::InstanceId, std::uint32_t rows,
             std::uint64_t context) const override {
    return milliseconds(models_[model].times.decode(rows, context));
  }
  Nanos load(schedule::ModelId model, schedule::InstanceId) const override {
    return transfer(models_[model].spec.weight_bytes);
  }
  Nanos activate(schedule::ModelId, schedule::InstanceId) const override { return cluster_.activate; }
  Nanos transfer(std::uint64_t bytes) const {
    return Nanos(
        static_cast<std::int64_t>(static_cast<double>(bytes) / cluster_.link_bytes_per_second * 1e9));
  }

 private:
  const std::vector<SimulatedModel>& models_;
  const Cluster& cluster_;
};

struct SimInstance {
  schedule::InstanceSpec spec;
  bool up = false;
  std::uint64_t version = 0;  // of the job
  std::uint64_t load_version = 0;
  schedule::ModelId active = schedule::kNoModel;
  std::vector<schedule::ModelId> resident;
  schedule::ModelId loading = schedule::kNoModel;
  Nanos load_begin{}, load_end{};
  // The last load that ended, to tell what a switch waited for.
  schedule::ModelId loaded = schedule::kNoModel;
  Nanos loaded_begin{}, loaded_end{};
  Nanos in_free{}, out_free{};  // when the KV queue of each direction is empty
  bool running = false;
  bool decoding = false;
  bool stop = false;
  schedule::ModelId model = schedule::kNoModel;  // of the job
  std::vector<schedule::RequestId> rows;
  std::uint32_t step_rows = 0;  // the first of them, which the step under way computes
  TimePoint until{};
  Nanos job_begin{}, step_begin{}, job_end{};
  std::uint64_t kv_bytes = 0;
};

struct SimRequest {
  std::uint32_t made = 0;
  std::uint32_t in_time = 0;
  bool arrived = false, shed = false, ended = false, cancelled = false;
  bool prefilling = false;
  bool started = false;  // its first prefill has begun
  schedule::InstanceId kv = schedule::kNowhere;
  schedule::InstanceId moving_to = schedule::kNowhere;
  bool cancel_wanted = false;
  std::uint64_t version = 0;  // of its move
  Nanos move_end{};
};

}  // namespace switchyard::simulate
