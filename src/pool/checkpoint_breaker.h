// Keeps a checkpoint that cannot be used from being tried again and again: after a failure it is left alone
// for a while, twice as long after each further one, and whoever asks gets the last reason.
//
// One thread at a time; costs a look-up. Remembers a bounded number of checkpoints.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::pool {

class CheckpointBreaker {
 public:
  CheckpointBreaker(Nanos first_pause, Nanos longest_pause)
      : first_pause_(first_pause), longest_pause_(longest_pause) {}

  // Errors: of the last failure, if it is not to be tried yet.
  Status check(const std::string& checkpoint, TimePoint now) const;
  void failed(const std::string& checkpoint, const Error& why, TimePoint now);
  void succeeded(const std::string& checkpoint) { broken_.erase(checkpoint); }

 private:
  static constexpr std::size_t kMostRemembered = 1024;

  struct Broken {
    std::uint32_t failures = 0;
    Nanos pause{};
    TimePoint until{};
    Error why{};
  };

  const Nanos first_pause_;
  const Nanos longest_pause_;
  std::map<std::string, Broken> broken_;
};

}  // namespace switchyard::pool
