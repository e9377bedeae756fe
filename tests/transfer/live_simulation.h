// Simulated rails under the same tests as real ones: a thread steps simulated engines so that their virtual
// time keeps up with the clock.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "sim/cluster.h"
#include "switchyard/transfer.h"

namespace switchyard::testing {

class LiveSimulation {
 public:
  // "sim" (one rail without order), "sim_in_order", "sim_rails" (three, of different speeds).
  static bool knows(const std::string& fabric);
  static LiveSimulation& instance();

  struct Started {
    std::unique_ptr<TransferEngine> engine;
    std::shared_ptr<void> end;  // its last copy waits until the engine has ended; drop it after the engine
  };
  Started start(const std::string& fabric, const EngineOptions& options);

 private:
  LiveSimulation();
  ~LiveSimulation();
  void drive(const std::stop_token& stop);

  sim::Cluster cluster_;
  std::jthread driver_;
};

}  // namespace switchyard::testing
