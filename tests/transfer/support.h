// What the tests of the transfer engine share: outcomes to wait for, patterns to check, engines of a fabric.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "fabric/fabric.h"
#include "switchyard/transfer.h"
#include "transfer/live_simulation.h"

namespace switchyard::testing {

constexpr std::chrono::seconds kPatience{30};  // of a test; nothing here takes that long unless it is broken

inline TimePoint soon() { return monotonic_now() + kPatience; }

// Takes one Done, and lets a test wait for it.
class Outcome {
 public:
  Done done() {
    return [state = state_](const Status& status) {
      std::lock_guard lock(state->mutex);
      ++state->calls;
      if (!state->status) state->status = status;
      state->changed.notify_all();
    };
  }
  std::function<void()> plain() {
    return [done = done()] { done(Status{}); };
  }
  bool ready() const {
    std::lock_guard lock(state_->mutex);
    return state_->status.has_value();
  }
  int calls() const {
    std::lock_guard lock(state_->mutex);
    return state_->calls;
  }
  // timed_out when nothing comes.
  Status wait(std::chrono::milliseconds limit = kPatience) const {
    std::unique_lock lock(state_->mutex);
    if (!state_->changed.wait_for(lock, limit, [&] { return state_->status.has_value(); })) {
      return fail(ErrorCode::timed_out, "the test waited in vain");
    }
    return *state_->status;
  }
  // "ok", or the name of the error's code.
  std::string word(std::chrono::milliseconds limit = kPatience) const {
    Status status = wait(limit);
    return status ? "ok" : std::string(to_string(status.error().code));
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Status> status;
    int calls = 0;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// Polls until it holds or patience ends.
inline bool eventually(const std::function<bool()>& holds, std::chrono::milliseconds limit = kPatience) {
  const TimePoint deadline = monotonic_now() + limit;
  while (!holds()) {
    if (monotonic_now() >= deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Eight bytes of a pattern at a time, so that checking megabytes stays quick under a sanitizer.
inline std::uint64_t pattern_word(std::uint64_t seed, std::uint64_t index) {
  const std::uint64_t x = (seed * 0x9e3779b97f4a7c15 + index) * 0xbf58476d1ce4e5b9;
  return x ^ (x >> 31);
}
inline std::byte pattern(std::uint64_t seed, std::uint64_t offset) {
  return static_cast<std::byte>(pattern_word(seed, offset / 8) >> (8 * (offset % 8)));
}
inline void fill(std::span<std::byte> bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t word = pattern_word(seed, i / 8);
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, bytes.size() - i));
  }
}
inline bool filled(std::span<const std::byte> bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t word = pattern_word(seed, i / 8);
    if (std::memcmp(bytes.data() + i, &word, std::min<std::size_t>(8, bytes.size() - i)) != 0) return false;
  }
  return true;
}

// An engine with memory of its own.
struct Side {
  std::vector<std::byte> memory;  // outlives the engine
  std::shared_ptr<void> end;      // of an engine that has no thread of its own: waits until it has ended
  std::unique_ptr<TransferEngine> engine;
  Region region;

  PeerAddress address() const { return engine->address(); }
  RegionKey key() const { return region.key(); }
  std::span<std::byte> bytes() { return memory; }
};

// What tests call a fabric may end in "+key" or "+tls": with that security.
inline std::string plain_fabric(const std::string& fabric) { return fabric.substr(0, fabric.find('+')); }

inline Side make_side(const std::string& fabric, std::size_t bytes, EngineOptions options = {}) {
  options.fabric = plain_fabric(fabric);
  if (options.fabric != fabric) options.shared_key = "a key that all tests share";
  options.tls.enabled |= fabric.ends_with("+tls");
  Side side{.memory = std::vector<std::byte>(bytes)};
  if (LiveSimulation::knows(fabric)) {
    auto started = LiveSimulation::instance().start(fabric, options);
    side.engine = std::move(started.engine);
    side.end = std::move(started.end);
  } else {
    auto engine = TransferEngine::open(options);
    if (!engine) {
      ADD_FAILURE() << engine.error().message;
      std::abort();
    }
    side.engine = std::move(*engine);
  }
  auto region = side.engine->register_region(side.memory.data(), bytes);
  if (!region) {
    ADD_FAILURE() << region.error().message;
    std::abort();
  }
  side.region = *region;
  return side;
}

// Everything that the one side has, to the beginning of the other.
inline Write whole(Side& from, Side& to) {
  Write write;
  write.source = from.region;
  write.peer = to.address();
  write.target = to.key();
  write.bytes = from.memory.size();
  return write;
}

inline std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (std::byte b : bytes) text += fmt::format("{:02x}", static_cast<int>(b));
  return text;
}
inline std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    int value = 0;
    std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

// Every rule holds on every fabric that this machine has.
class OnFabric : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    const std::string rails = plain_fabric(GetParam()) + ",";
    for (const auto& report : fabric::list_fabrics()) {
      const bool asked = rails.starts_with(report.name + ",") || rails.starts_with(report.name + "@");
      if (asked && !report.usable) GTEST_SKIP() << report.detail;
    }
  }
  Side side(std::size_t bytes, EngineOptions options = {}) { return make_side(GetParam(), bytes, options); }
};

// SWITCHYARD_TEST_FABRICS, words as for EngineOptions::fabric, tests those instead: on machines that have
// more.
inline auto fabrics_or(std::vector<std::string> usual) {
  if (const char* asked = std::getenv("SWITCHYARD_TEST_FABRICS"); asked != nullptr && *asked != '\0') {
    std::istringstream words(asked);
    usual.assign(std::istream_iterator<std::string>(words), {});
  }
  return ::testing::ValuesIn(usual);
}
inline auto all_fabrics() {
  return fabrics_or({"shm", "net", "tcp;ofi_rxm", "shm+tls", "net+key", "sim", "sim_in_order"});
}
// Those whose engines may be processes of their own.
inline auto process_fabrics() { return fabrics_or({"shm", "net", "tcp;ofi_rxm", "shm+tls", "net+key"}); }
// Engines with several rails as well.
inline auto rail_sets() {
  return fabrics_or({"shm", "net", "net,net,net", "tcp;ofi_rxm", "sim", "sim_in_order", "sim_rails"});
}
inline std::string fabric_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

}  // namespace switchyard::testing
