#include <algorithm>
#include <type_traits>

#include "model/gguf.h"

namespace switchyard::model {
namespace {

template <class T>
const T* value_at(const GgufMetadata& metadata, std::string_view key) {
  const auto found = metadata.values.find(key);
  return found == metadata.values.end() ? nullptr : std::get_if<T>(&found->second);
}

}  // namespace

std::optional<std::uint64_t> GgufMetadata::integer(std::string_view key) const {
  if (const auto* value = value_at<std::uint64_t>(*this, key)) return *value;
  if (const auto* value = value_at<std::int64_t>(*this, key); value != nullptr && *value >= 0) {
    return static_cast<std::uint64_t>(*value);
  }
  return std::nullopt;
}

std::optional<double> GgufMetadata::real(std::string_view key) const {
  if (const auto* value = value_at<double>(*this, key)) return *value;
  if (const auto* value = value_at<std::uint64_t>(*this, key)) return static_cast<double>(*value);
  if (const auto* value = value_at<std::int64_t>(*this, key)) return static_cast<double>(*value);
  return std::nullopt;
}

std::optional<bool> GgufMetadata::boolean(std::string_view key) const {
  if (const auto* value = value_at<bool>(*this, key)) return *value;
  return std::nullopt;
}

std::optional<std::string_view> GgufMetadata::string(std::string_view key) const {
  if (const auto* value = value_at<std::string_view>(*this, key)) return *value;
  return std::nullopt;
}

const std::vector<std::string_view>* GgufMetadata::strings(std::string_view key) const {
  const auto* array = value_at<GgufArray>(*this, key);
  return array == nullptr ? nullptr : std::get_if<std::vector<std::string_view>>(array);
}

std::optional<std::vector<std::int64_t>> GgufMetadata::integers(std::string_view key) const {
  const auto* array = value_at<GgufArray>(*this, key);
  if (array == nullptr) return std::nullopt;
  if (const auto* signed_values = std::get_if<std::vector<std::int64_t>>(array)) return *signed_values;
  const auto* unsigned_values = std::get_if<std::vector<std::uint64_t>>(array);
  if (unsigned_values == nullptr) return std::nullopt;
  const auto too_large = [](std::uint64_t value) { return value >> 63 != 0; };
  if (std::ranges::any_of(*unsigned_values, too_large)) return std::nullopt;
  return std::vector<std::int64_t>(unsigned_values->begin(), unsigned_values->end());
}

std::optional<std::vector<double>> GgufMetadata::reals(std::string_view key) const {
  const auto* array = value_at<GgufArray>(*this, key);
  if (array == nullptr) return std::nullopt;
  return std::visit(
      [](const auto& list) -> std::optional<std::vector<double>> {
        if constexpr (std::is_same_v<std::decay_t<decltype(list)>, std::vector<std::string_view>>) {
          return std::nullopt;
        } else {
          return std::vector<double>(list.begin(), list.end());
        }
      },
      *array);
}

}  // namespace switchyard::model
