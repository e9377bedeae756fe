#include "sim/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace switchyard::sim {
namespace {

struct Words {
  std::string_view name;
  std::array<std::string_view, 4> operands;
};

// In the order of Event.
constexpr Words kWords[] = {
    {"posted", {"fabric", "write", "bytes", "immediate"}},
    {"landed", {"fabric", "write", "offset", "bytes"}},
    {"dropped", {"fabric", "write", "offset", "bytes"}},
    {"delivered", {"fabric", "write"}},
    {"failed", {"fabric", "write", "refused"}},
    {"arrived", {"fabric", "write", "immediate"}},
    {"end added", {"fabric", "end"}},
    {"end connected", {"fabric", "end", "to"}},
    {"end removed", {"fabric", "end"}},
    {"memory added", {"fabric", "key", "bytes"}},
    {"memory removed", {"fabric", "key"}},
    {"fabric closed", {"fabric"}},
    {"write broken", {"fabric", "write", "mode"}},
    {"path broken", {"fabric", "end"}},
    {"port down", {"host", "port", "announced"}},
    {"port up", {"host", "port"}},
    {"port slow", {"host", "port", "percent"}},
    {"port refuses", {"host", "port", "for"}},
    {"host isolated", {"host"}},
    {"host joined", {"host"}},
    {"host died", {"host"}},
    {"process started", {"process", "host"}},
    {"process killed", {"process"}},
    {"process paused", {"process", "for"}},
    {"process stopped", {"process"}},
    {"dialled", {"process", "link", "host"}},
    {"link opened", {"process", "link"}},
    {"link closed", {"process", "link"}},
    {"link broken", {"connection"}},
    {"record sent", {"process", "link", "type", "bytes"}},
    {"record read", {"process", "link", "type", "bytes"}},
    {"stepped", {"process", "busy"}},
    {"submitted", {"process", "operation", "kind", "bytes"}},
    {"done", {"process", "operation", "error"}},
    {"cancelled", {"process", "operation"}},
    {"drained", {"process", "operation"}},
    {"counted", {"process", "counter", "total"}},
    {"peer lost", {"process", "peer"}},
};
static_assert(std::size(kWords) == static_cast<std::size_t>(Event::peer_lost) + 1);

}  // namespace

std::vector<std::string> Trace::latest(std::size_t limit) const {
  const std::uint64_t kept = std::min<std::uint64_t>({kept_, kKept, limit});
  std::vector<std::string> lines;
  lines.reserve(kept);
  for (std::uint64_t i = kept_ - kept; i < kept_; ++i) {
    const Entry& entry = latest_[i % kKept];
    const Words& words = kWords[static_cast<std::size_t>(entry.event)];
    std::string line =
        fmt::format("{:>13.6f} ms  {}", to_seconds(entry.when.time_since_epoch()) * 1e3, words.name);
    for (std::size_t j = 0; j < words.operands.size() && !words.operands[j].empty(); ++j)
      line += fmt::format("  {} {}", words.operands[j], entry.operands[j]);
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace switchyard::sim
