// What instances did, as JSON lines: one object per turn, switch and move of KV, with `t` in seconds
// since the trace began. For `bench pool` and for whoever wants to see where time went.
//
// One writer at a time. Lines go to the file at flush(), and when much is waiting; a full disk loses lines,
// is logged once, and disturbs nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::pool {

class Trace {
 public:
  // Overwrites the file. Errors: io.
  static Result<std::unique_ptr<Trace>> open(const std::filesystem::path& file);

  struct Turn {
    std::string_view instance, model, kind;  // "prefill" or "decode"
    Nanos took;
    std::uint64_t rows, tokens, reused;
  };
  void turn(const Turn& turn, TimePoint now);
  struct Switch {
    std::string_view instance, model, from;
    std::uint64_t bytes;
    Nanos load;  // how long the load took, wherever it was hidden
    Nanos wait;  // that the instance stood still for it
  };
  void change(const Switch& change, TimePoint now);
  struct Move {
    std::uint64_t request;
    std::string_view from, to;
    std::uint64_t bytes;
    Nanos took;
  };
  void move(const Move& move, TimePoint now);
  void flush();

 private:
  void line(TimePoint now, std::string_view rest);

  std::ofstream file_;
  TimePoint begin_;
  std::string waiting_;
  bool failed_ = false;
};

}  // namespace switchyard::pool
