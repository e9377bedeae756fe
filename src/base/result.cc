#include "switchyard/result.h"

namespace switchyard {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid: return "invalid";
    case ErrorCode::out_of_range: return "out_of_range";
    case ErrorCode::denied: return "denied";
    case ErrorCode::exhausted: return "exhausted";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::not_found: return "not_found";
    case ErrorCode::corrupt: return "corrupt";
    case ErrorCode::peer_lost: return "peer_lost";
    case ErrorCode::cancelled: return "cancelled";
    case ErrorCode::timed_out: return "timed_out";
    case ErrorCode::io: return "io";
  }
  return "unknown";
}

}  // namespace switchyard
