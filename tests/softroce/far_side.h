// The other guest of engine_pair: an engine in a process that may be killed, and a process that starts and
// kills it, pulls its plugs, and switches the guest off when it is told to. Told in lines over TCP, on the
// network that is never cut; each is answered with one line:
//
//   start                  -> address and key of a new engine
//   kill                   -> killed (kill -9, and it is no more)
//   power off              -> going, and then nothing: the machine stops at once, nothing is shut down
//   down NAME | up NAME    -> ok, or why the network device could not be switched
// and, answered by the engine:
//   counter                -> slot generation epoch, of the one counter
//   arrived                -> how many transfers it has counted
//   whole SEED             -> yes, or what is wrong with the bytes of a write of kWhole bytes
//   pages SEED             -> yes, or what is wrong with the pages of kPages pages
#pragma once

#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "switchyard/transfer.h"

namespace switchyard::testing {

constexpr const char* kFourRails = "verbs@rxe0,verbs@rxe1,verbs@rxe2,verbs@rxe3";
constexpr std::size_t kRails = 4;
constexpr std::size_t kGuard = 4096;  // before and after what is written to: stays zero
constexpr std::size_t kWhole = 64u << 20;
constexpr std::size_t kPage = 4096;
constexpr std::uint32_t kPages = 10'000;

// Which page of the source goes to which of the target.
struct PagePermutation {
  std::vector<std::uint32_t> source, target;
  explicit PagePermutation(std::uint64_t seed) : source(kPages), target(kPages) {
    std::mt19937_64 random(seed);
    for (auto* list : {&source, &target}) {
      std::iota(list->begin(), list->end(), 0u);
      std::shuffle(list->begin(), list->end(), random);
    }
  }
};

// "ok" or the reason. What `ip link set dev NAME up` (or down) does.
std::string switch_device(const std::string& name, bool up);

// The program of the other guest: obeys whoever connects, until that ends.
int run_far_side(const std::string& host);

// The other guest, as the tests see it. A question that is not answered in time is a failure, and its answer
// empty.
class FarSide {
 public:
  explicit FarSide(const std::string& host);
  std::string ask(const std::string& line);
  void start();  // an engine: address(), key() and counter() are its
  const PeerAddress& address() const { return address_; }
  const RegionKey& key() const { return key_; }
  const CounterId& counter() const { return counter_; }

 private:
  int socket_ = -1;
  PeerAddress address_;
  RegionKey key_;
  CounterId counter_;
};

}  // namespace switchyard::testing
