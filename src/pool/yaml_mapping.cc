#include "pool/yaml_mapping.h"

#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>
#include <utility>

#include "base/units.h"

namespace switchyard::pool {
namespace {

constexpr std::size_t kMostShown = 64;  // bytes of a value or key that an error repeats

std::string shown(std::string_view text) {
  return text.size() <= kMostShown ? std::string(text) : std::string(text.substr(0, kMostShown)) + "...";
}

std::string at(const std::string& mapping, const std::string& key) {
  return mapping.empty() ? key : mapping + "." + key;
}

// Throws at what follows the first document. YAML::LoadAll would go on for ever where a document begins with
// what no document may begin with (", a"): it takes nothing from the text then (yaml-cpp 0.7 and 0.8).
class OneDocument : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (std::exchange(begun_, true))
      throw YAML::ParserException(mark, "a second document or stray text begins; there may be one document");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
  }
  void OnMapEnd() override {}

 private:
  bool begun_ = false;
};

}  // namespace

tl::unexpected<Error> fail_in_line(const YAML::Node& node, const std::string& name, const Error& error) {
  return tl::unexpected<Error>(
      Error{error.code, fmt::format("line {}: {}: {}", node.Mark().line + 1, name, error.message)});
}

Result<YAML::Node> parse_yaml(const std::string& text) {
  if (const auto nul = text.find('\0'); nul != std::string::npos) {
    return fail(ErrorCode::invalid, "line {}: holds a NUL byte; UTF-8 text is expected",
                std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(nul), '\n') + 1);
  }
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    OneDocument one;
    while (parser.HandleNextDocument(one)) {
    }
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::invalid, "line {}: {}", error.mark.line + 1, error.msg);
  }
}

Status read_mapping(const YAML::Node& node, const std::string& name, const YamlReaders& readers) {
  const std::string where = name.empty() ? "the configuration" : name;
  if (!node.IsMap()) {
    return fail(ErrorCode::invalid, "line {}: {} must be a mapping", node.Mark().line + 1, where);
  }
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    const auto reader = readers.find(key);
    if (reader == readers.end()) {
      std::string known;
      for (const auto& [other, unused] : readers) known += (known.empty() ? "" : ", ") + other;
      return fail(ErrorCode::invalid, "line {}: '{}' is not known in {}; known are: {}",
                  entry.first.Mark().line + 1, shown(key), where, known);
    }
    if (!seen.insert(key).second) {
      return fail(ErrorCode::invalid, "line {}: {} is there twice", entry.first.Mark().line + 1,
                  at(name, key));
    }
    const auto status = reader->second.read(entry.second);
    if (status) continue;
    if (!reader->second.leaf) return status;
    return fail_in_line(entry.second, at(name, key), status.error());
  }
  return {};
}

Status read_sequence(const YAML::Node& node, const std::string& name, std::size_t most,
                     const std::function<Status(const YAML::Node&)>& read) {
  if (!node.IsSequence())
    return fail(ErrorCode::invalid, "line {}: {} must be a list", node.Mark().line + 1, name);
  if (node.size() > most) {
    return fail(ErrorCode::invalid, "line {}: {} has {} entries; at most {} are allowed",
                node.Mark().line + 1, name, node.size(), most);
  }
  for (const auto& element : node) {
    if (auto status = read(element); !status) return status;
  }
  return {};
}

Result<std::string> scalar(const YAML::Node& node) {
  if (!node.IsScalar()) return fail(ErrorCode::invalid, "must be one value");
  return node.Scalar();
}

YamlReader text_into(std::string& target) {
  return {[&target](const YAML::Node& node) -> Status {
    if (!node.IsScalar()) return fail(ErrorCode::invalid, "must be a string");
    target = node.Scalar();
    return {};
  }};
}

YamlReader bool_into(bool& target) {
  return {[&target](const YAML::Node& node) -> Status {
    if (!node.IsScalar() || !YAML::convert<bool>::decode(node, target))
      return fail(ErrorCode::invalid, "must be true or false");
    return {};
  }};
}

YamlReader number_into(std::function<void(std::uint64_t)> target, std::uint64_t low, std::uint64_t high) {
  return {[target = std::move(target), low, high](const YAML::Node& node) -> Status {
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
      return fail(ErrorCode::invalid, "'{}' is not a number from {} to {}", shown(text), low, high);
    }
    target(value);
    return {};
  }};
}

YamlReader real_into(double& target, double low, double high) {
  return {[&target, low, high](const YAML::Node& node) -> Status {
    const std::string text = node.IsScalar() ? node.Scalar() : "";
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !(value >= low && value <= high)) {
      return fail(ErrorCode::invalid, "'{}' is not a number from {} to {}", shown(text), low, high);
    }
    target = value;
    return {};
  }};
}

YamlReader bytes_into(std::uint64_t& target) {
  return {[&target](const YAML::Node& node) -> Status {
    const auto text = scalar(node);
    if (!text) return pass(text.error());
    const auto bytes = parse_bytes(*text);
    if (!bytes) return pass(bytes.error());
    if (*bytes == 0) return fail(ErrorCode::invalid, "must be more than 0; leave it out for the default");
    target = *bytes;
    return {};
  }};
}

YamlReader mapping(std::string name, YamlReaders readers) {
  return {[name = std::move(name), readers = std::move(readers)](const YAML::Node& node) {
            return read_mapping(node, name, readers);
          },
          false};
}

}  // namespace switchyard::pool
