#include <sched.h>

#include <algorithm>
#include <array>
#include <functional>

#include "transfer_drive.h"
#include "transfer_pattern.h"

namespace switchyard::bench {
namespace {

constexpr Nanos kEndLimit = std::chrono::seconds(20);

Nanos nanos(double seconds) {
  return std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
}

Error describe(const RailSet::Rail& rail, int error) {
  return {ErrorCode::io, fmt::format("bare rail '{}': {}", rail.fabric->capabilities().fabric,
                                     rail.fabric->describe_error(error))};
}

// Keeps `lanes` writes under way, lane l on rail l modulo the rails, until time is over. `next` makes the
// lane's next write. Writes per second.
Result<Throughput> keep_writing(RailSet& set, std::uint32_t lanes, double seconds,
                                const std::function<fabric::WriteRequest(std::uint32_t lane)>& next) {
  const std::size_t rails = set.rails.size();
  std::vector<std::vector<fabric::WriteRequest>> waiting(rails);
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    waiting[lane % rails].push_back(next(lane));
    waiting[lane % rails].back().cookie = lane;
  }
  std::array<fabric::Completion, 64> completions;
  std::uint32_t under_way = 0;
  std::uint64_t count = 0;
  const TimePoint begin = monotonic_now(), end = begin + nanos(seconds);
  TimePoint now = begin;
  Patience patience;
  while (true) {
    bool any = false;
    // Something is always counted, however busy the machine.
    const bool over = now >= end && count + under_way != 0;
    if (over && under_way == 0) break;
    if (now >= end + kEndLimit)
      return fail(ErrorCode::timed_out, "a bare rail does not complete {} writes", under_way);
    for (std::size_t i = 0; i < rails; ++i) {
      RailSet::Rail& rail = set.rails[i];
      if (!over && !waiting[i].empty()) {
        const std::size_t taken = rail.fabric->post(rail.end.peer, waiting[i]);
        under_way += static_cast<std::uint32_t>(taken);
        any |= taken != 0;
        waiting[i].erase(waiting[i].begin(), waiting[i].begin() + static_cast<std::ptrdiff_t>(taken));
      }
      const std::size_t got = rail.fabric->poll(completions);
      any |= got != 0;
      for (std::size_t c = 0; c < got; ++c) {
        if (completions[c].kind == fabric::Completion::Kind::arrived) continue;
        if (completions[c].kind == fabric::Completion::Kind::failed)
          return pass(describe(rail, completions[c].error));
        --under_way;
        ++count;
        const auto lane = static_cast<std::uint32_t>(completions[c].cookie);
        waiting[i].push_back(next(lane));
        waiting[i].back().cookie = lane;
      }
    }
    patience.found(any);
    now = monotonic_now();
  }
  return Throughput{.writes_per_second = static_cast<double>(count) / to_seconds(now - begin),
                    .bytes = static_cast<double>(count)};
}

Result<Throughput> in_bytes(Result<Throughput> writes, std::uint64_t bytes) {
  if (writes) {
    writes->bytes_per_second = writes->writes_per_second * static_cast<double>(bytes);
    writes->bytes *= static_cast<double>(bytes);
  }
  return writes;
}

}  // namespace

void Patience::found(bool anything) {
  const TimePoint now = monotonic_now();
  if (anything) {
    last_ = now;
  } else if (now - last_ > std::chrono::microseconds(10)) {
    sched_yield();
  }
}

Result<Throughput> rail_writes(RailSet& set, std::byte* base, const WriteLoad& load, double seconds) {
  const WritePlaces places(load);
  std::vector<std::uint64_t> turns(load.depth, 0);
  const auto next = [&](std::uint32_t lane) {
    fabric::WriteRequest write =
        set.write(lane % set.rails.size(), base, places.offset(lane, turns[lane]++), load.bytes);
    write.has_immediate = load.counter;
    write.immediate = kSink;
    return write;
  };
  return in_bytes(keep_writing(set, load.depth, seconds, next), load.bytes);
}

Result<Throughput> rail_pages(RailSet& set, std::byte* base, const PageLoad& load, double seconds) {
  const PagePlaces places(load);
  std::uint64_t page = 0, list = 0;
  const auto next = [&](std::uint32_t lane) {
    const std::uint64_t first = places.first(static_cast<std::uint32_t>(list % load.depth));
    const std::size_t rail = lane % set.rails.size();
    fabric::WriteRequest write =
        set.write(rail, base, first + places.source()[page] * load.page_bytes, load.page_bytes);
    write.target_address = set.rails[rail].target_address + first + places.target()[page] * load.page_bytes;
    if (++page == load.pages) {
      page = 0;
      ++list;
    }
    return write;
  };
  const auto& capabilities = set.rails.front().fabric->capabilities();
  // As many as keep the rail busy, but not more than the lists have.
  const auto lanes = static_cast<std::uint32_t>(
      std::min<std::uint64_t>({capabilities.window, 64, std::uint64_t{load.pages} * load.depth}) *
      set.rails.size());
  return in_bytes(keep_writing(set, lanes, seconds, next), load.page_bytes);
}

Result<Times> rail_echoes(RailSet& set, std::byte* base, double seconds) {
  Times times;
  RailSet::Rail& rail = set.rails.front();
  std::array<fabric::Completion, 64> completions;
  const TimePoint end = monotonic_now() + nanos(seconds);
  TimePoint now = monotonic_now();
  Patience patience;
  do {
    const TimePoint start = now;
    fabric::WriteRequest ping = set.write(0, base, 0, 8);
    ping.has_immediate = true;
    ping.immediate = kEcho;
    bool posted = false;
    for (bool back = false; !back;) {
      if (!posted) posted = rail.fabric->post(rail.end.peer, {&ping, 1}) == 1;
      const std::size_t got = rail.fabric->poll(completions);
      for (std::size_t c = 0; c < got; ++c) {
        if (completions[c].kind == fabric::Completion::Kind::failed)
          return pass(describe(rail, completions[c].error));
        back |= completions[c].kind == fabric::Completion::Kind::arrived;
      }
      patience.found(got != 0);
      now = monotonic_now();
      if (now - start > kEndLimit) return fail(ErrorCode::timed_out, "an echo of a bare rail is lost");
    }
    times.push_back(to_seconds(now - start) / 2);
  } while (now < end);
  std::sort(times.begin(), times.end());
  return times;
}

}  // namespace switchyard::bench
