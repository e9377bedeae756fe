// Random operations between the engines of a cluster, told to a ledger. Everything that the interface of an
// engine offers, at random times and from inside callbacks too, now and then with arguments that have to be
// refused.
//
// Owned by the random test. Threads: the test's.
#pragma once

#include <vector>

#include "sim/ledger.h"

namespace switchyard::sim {

struct WorkloadOptions {
  std::uint32_t operations = 100;
  std::uint64_t largest = 64 << 10;  // bytes of a transfer
  double cancels = 0.1;
  double deadlines = 0.3;
  double passing_regions = 0.05;  // targets that are unregistered at some time
  Nanos duration = std::chrono::milliseconds(50);
};

class Workload {
 public:
  Workload(Cluster& cluster, Ledger& ledger, const WorkloadOptions& options);

  // A node has been started: its handlers are set, and it takes part.
  void add_node(NodeId node);
  // Arranges all operations in the time to come.
  void begin();
  // Nothing new from now on.
  void stop() { stopped_ = true; }
  // Every operation of a living node has come to its end.
  bool finished() const;
  std::string describe_unfinished() const;

 private:
  void operate(bool from_callback);
  void transfer(NodeId from);
  void scatter(NodeId from);
  void signal(NodeId from);
  void message(NodeId from);
  void connect(NodeId from);
  void nonsense(NodeId from);
  void old_address(NodeId from);

  NodeId some_living();
  NodeId some_target(NodeId from);
  OpId make(Op::Kind kind, NodeId from, NodeId to);
  CounterNumber some_counter(NodeId at);
  void aim_at(CounterNumber counter, PartId part);
  void arm(CounterNumber counter);
  SubmitOptions options_for(OpId op, NodeId to, PartId part, bool counted);
  Done done_of(OpId op);
  void accept(OpId op, Result<Transfer> transfer);
  void forget(OpId op);
  void cancel(OpId op);

  Cluster& cluster_;
  Network& network_;
  Ledger& ledger_;
  Random random_;
  const WorkloadOptions options_;
  bool stopped_ = false;
};

}  // namespace switchyard::sim
