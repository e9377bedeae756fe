// YAML mappings with a known set of keys; errors name the line and the key ("line 3: listen.port: ...").
//
// Pure; any thread. yaml-cpp throws on nodes it cannot make sense of: parse_yaml() and read_yaml() are the
// border that turns that into errors.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "switchyard/result.h"

namespace switchyard::pool {

// How the value of one key is read. A leaf's error is completed with line and key; another one's names its
// own.
struct YamlReader {
  std::function<Status(const YAML::Node&)> read;
  bool leaf = true;
};
using YamlReaders = std::map<std::string, YamlReader, std::less<>>;

// The one document in `text`. Errors: invalid.
Result<YAML::Node> parse_yaml(const std::string& text);

// Every key of `node` is known and stands once. `name`: of the mapping, "" at the top. Errors: invalid.
Status read_mapping(const YAML::Node& node, const std::string& name, const YamlReaders& readers);
// Calls `read` for every element. Errors: invalid (no sequence, more than `most`), those of `read`.
Status read_sequence(const YAML::Node& node, const std::string& name, std::size_t most,
                     const std::function<Status(const YAML::Node&)>& read);

// "line 3: listen.port: ..."
tl::unexpected<Error> fail_in_line(const YAML::Node& node, const std::string& name, const Error& error);

// Text of a scalar. Errors: invalid.
Result<std::string> scalar(const YAML::Node& node);

YamlReader text_into(std::string& target);
YamlReader bool_into(bool& target);
YamlReader number_into(std::function<void(std::uint64_t)> target, std::uint64_t low, std::uint64_t high);
template <class T>
YamlReader number_into(T& target, std::uint64_t low, std::uint64_t high) {
  return number_into(
      std::function<void(std::uint64_t)>([&target](std::uint64_t value) { target = static_cast<T>(value); }),
      low, high);
}
YamlReader real_into(double& target, double low, double high);
YamlReader bytes_into(std::uint64_t& target);
// A mapping inside of a mapping.
YamlReader mapping(std::string name, YamlReaders readers);

}  // namespace switchyard::pool
