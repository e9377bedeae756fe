#include "pool/catalogue.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/units.h"
#include "model/unicode.h"

namespace switchyard::pool {
namespace {

constexpr std::uint64_t kMaxContext = 1 << 24;
constexpr std::uint64_t kMaxWaiting = 1 << 20;
constexpr double kMaxWeight = 1e6;
constexpr double kMaxRate = 1e6;
constexpr Nanos kLeastTarget = std::chrono::microseconds(10);
constexpr Nanos kMostTarget = std::chrono::hours(1);

template <class T>
Status read_number(T& target, std::string_view text, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most) {
    return fail(ErrorCode::invalid, "'{}' is not a number from 0 to {}", text.substr(0, 64), most);
  }
  target = static_cast<T>(value);
  return {};
}

Status read_real(double& target, std::string_view text, double most) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= most)) {
    return fail(ErrorCode::invalid, "'{}' is not a number from 0 to {}", text.substr(0, 64), most);
  }
  target = value;
  return {};
}

Status read_target(Nanos& target, std::string_view text) {
  const auto value = parse_duration(text);
  if (!value) return pass(value.error());
  target = *value;
  return {};
}

Status check_target(const char* name, Nanos target) {
  if (target >= kLeastTarget && target <= kMostTarget) return {};
  return fail(ErrorCode::invalid, "{} is {} s; it must be from 10 us to 1 h", name, to_seconds(target));
}

using Setter = Status (*)(ModelSettings&, std::string_view);
constexpr std::array<std::string_view, 8> kNames = {
    "ttft", "tbt", "weight", "pinned", "context", "max_waiting", "rate.per_second", "rate.burst"};
constexpr std::array<Setter, 8> kSetters = {
    [](ModelSettings& s, std::string_view text) { return read_target(s.targets.first_token, text); },
    [](ModelSettings& s, std::string_view text) { return read_target(s.targets.between_tokens, text); },
    [](ModelSettings& s, std::string_view text) { return read_real(s.weight, text, kMaxWeight); },
    [](ModelSettings& s, std::string_view text) -> Status {
      if (text != "true" && text != "false") return fail(ErrorCode::invalid, "must be true or false");
      s.pinned = text == "true";
      return {};
    },
    [](ModelSettings& s, std::string_view text) { return read_number(s.context, text, kMaxContext); },
    [](ModelSettings& s, std::string_view text) { return read_number(s.max_waiting, text, kMaxWaiting); },
    [](ModelSettings& s, std::string_view text) {
      const auto status = read_real(s.rate.per_second, text, kMaxRate);
      if (status && s.rate.per_second == 0) s.rate.burst = 0;  // no rate: nor a default's burst
      return status;
    },
    [](ModelSettings& s, std::string_view text) { return read_real(s.rate.burst, text, kMaxRate); },
};

}  // namespace

Status validate(const ModelSettings& settings) {
  const std::string& id = settings.id;
  if (id.empty()) return fail(ErrorCode::invalid, "a model needs a name");
  if (id.size() > kMaxModelIdBytes) {
    return fail(ErrorCode::invalid, "the name of a model has {} bytes; at most {} are allowed", id.size(),
                kMaxModelIdBytes);
  }
  const bool printable = model::utf8_valid(id) && std::none_of(id.begin(), id.end(), [](char c) {
                           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
                         });
  if (!printable || id.front() == ' ' || id.back() == ' ' || id.front() == '/' || id.back() == '/') {
    return fail(
        ErrorCode::invalid,
        "the name of a model must be UTF-8 without control characters, and neither begin nor end with "
        "a space or '/'");
  }
  // Clients and proxies would fold such parts of an address.
  for (const auto& part : std::filesystem::path(id)) {
    if (part == "." || part == "..")
      return fail(ErrorCode::invalid, "the name of a model must not have '{}' between slashes",
                  part.string());
  }
  const std::string& path = settings.path.native();
  if (path.empty())
    return fail(ErrorCode::invalid, "model '{}': it needs a path: that of its checkpoint", id);
  if (path.size() > kMaxPathBytes || path.find('\0') != std::string::npos) {
    return fail(ErrorCode::invalid,
                "model '{}': its path has {} bytes; at most {} are allowed, and none of them 0", id,
                path.size(), kMaxPathBytes);
  }
  if (auto status = validate_defaults(settings); !status)
    return fail_at("model '" + id + "'", status.error());
  return {};
}

Status validate_defaults(const ModelSettings& settings) {
  if (auto status = check_target("ttft", settings.targets.first_token); !status) return status;
  if (auto status = check_target("tbt", settings.targets.between_tokens); !status) return status;
  if (!(settings.weight > 0 && settings.weight <= kMaxWeight)) {
    return fail(ErrorCode::invalid, "weight is {}; it must be more than 0 and at most {}", settings.weight,
                kMaxWeight);
  }
  if (settings.context > kMaxContext)
    return fail(ErrorCode::invalid, "context is {}; it must be at most {}", settings.context, kMaxContext);
  const auto& rate = settings.rate;
  if (!(rate.per_second >= 0 && rate.per_second <= kMaxRate && rate.burst >= 0 && rate.burst <= kMaxRate))
    return fail(ErrorCode::invalid, "rate must have numbers from 0 to {}", kMaxRate);
  if (rate.per_second > 0 && rate.burst < 1)
    return fail(ErrorCode::invalid, "rate.burst is {}: no request would ever get in; give at least 1",
                rate.burst);
  if (rate.per_second == 0 && rate.burst > 0)
    return fail(ErrorCode::invalid, "rate.burst is nothing without rate.per_second");
  return {};
}

std::span<const std::string_view> setting_names() { return kNames; }

Status set(ModelSettings& settings, std::string_view name, std::string_view text) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end())
    return fail(ErrorCode::not_found, "models have no setting '{}'", name.substr(0, 64));
  return kSetters[static_cast<std::size_t>(found - kNames.begin())](settings, text);
}

void complete(ModelSettings& settings) {
  auto& rate = settings.rate;
  if (rate.per_second > 0 && rate.burst == 0) rate.burst = std::max(1.0, rate.per_second);
}

std::string default_id(const std::filesystem::path& checkpoint) {
  auto path = checkpoint;
  if (path.filename().empty()) path = path.parent_path();  // "models/llama/"
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

}  // namespace switchyard::pool
