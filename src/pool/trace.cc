#include "pool/trace.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/log.h"

namespace switchyard::pool {
namespace {

constexpr std::size_t kMuch = 64 << 10;
constexpr std::string_view kTraceBegin = "{\"t\":";

// With quotes and escapes; what is no UTF-8 is replaced.
std::string quoted(std::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

Result<std::unique_ptr<Trace>> Trace::open(const std::filesystem::path& file) {
  // The opening of a pipe waits for its reader, and writing to it for a slow one.
  std::error_code unknown;
  if (std::filesystem::is_fifo(file, unknown))
    return fail(ErrorCode::invalid, "trace: {} is a pipe; name a file", file.string());
  // An older trace is replaced; a configuration or a checkpoint was named by mistake.
  std::ifstream there(file, std::ios::binary);
  std::string begin(kTraceBegin.size(), '\0');
  there.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (there.gcount() > 0 && begin != kTraceBegin) {
    return fail(ErrorCode::invalid,
                "trace: {} is there already and is no trace; name another file, or remove it", file.string());
  }
  auto trace = std::make_unique<Trace>();
  trace->file_.open(file, std::ios::trunc);
  if (!trace->file_) return fail(ErrorCode::io, "cannot write the trace {}", file.string());
  trace->begin_ = monotonic_now();
  return trace;
}

void Trace::line(TimePoint now, std::string_view rest) {
  if (failed_) return;
  fmt::format_to(std::back_inserter(waiting_), "{{\"t\":{:.6f},{}}}\n", to_seconds(now - begin_), rest);
  if (waiting_.size() > kMuch) flush();
}

void Trace::flush() {
  file_ << waiting_;
  file_.flush();
  waiting_.clear();
  if (!file_ && !failed_) {
    failed_ = true;
    log::error("the trace cannot be written any more; it ends here");
  }
}

void Trace::turn(const Turn& turn, TimePoint now) {
  line(now, fmt::format("\"event\":\"turn\",\"instance\":{},\"model\":{},\"kind\":{},\"seconds\":{:.6f},"
                        "\"rows\":{},\"tokens\":{},\"reused\":{}",
                        quoted(turn.instance), quoted(turn.model), quoted(turn.kind), to_seconds(turn.took),
                        turn.rows, turn.tokens, turn.reused));
}

void Trace::change(const Switch& change, TimePoint now) {
  line(now, fmt::format("\"event\":\"switch\",\"instance\":{},\"model\":{},\"from\":{},\"bytes\":{},"
                        "\"load_seconds\":{:.6f},\"wait_seconds\":{:.6f},\"hidden\":{}",
                        quoted(change.instance), quoted(change.model), quoted(change.from), change.bytes,
                        to_seconds(change.load), to_seconds(change.wait), change.wait == Nanos{}));
}

void Trace::move(const Move& move, TimePoint now) {
  line(now, fmt::format("\"event\":\"move\",\"request\":{},\"from\":{},\"to\":{},\"bytes\":{},"
                        "\"seconds\":{:.6f}",
                        move.request, quoted(move.from), quoted(move.to), move.bytes, to_seconds(move.took)));
}

}  // namespace switchyard::pool
