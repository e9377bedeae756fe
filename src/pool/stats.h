// Numbers of one instance, for /metrics: sent every now and then, each time all of them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pool/orders.h"

namespace switchyard {

using StatLabel = std::pair<std::string, std::string>;

inline void write_field(ByteWriter& writer, const StatLabel& label) {
  writer.write_string(label.first);
  writer.write_string(label.second);
}
inline void read_field(ByteReader& reader, StatLabel& label) {
  label.first = reader.read_string();
  label.second = reader.read_string();
}

}  // namespace switchyard

namespace switchyard::pool {

struct Stats {
  static constexpr OrderType kType = OrderType::stats;
  struct Sample {
    std::string name;  // without the product's prefix
    std::string help;
    bool counter = true;  // else a gauge
    double value = 0;
    std::vector<StatLabel> labels;

    static auto fields(auto& self) {
      return std::tie(self.name, self.help, self.counter, self.value, self.labels);
    }
  };
  std::vector<Sample> samples;

  static auto fields(auto& self) { return std::tie(self.samples); }

  void gauge(const char* name, const char* help, double value, std::vector<StatLabel> labels = {}) {
    samples.push_back({name, help, false, value, std::move(labels)});
  }
  void count(const char* name, const char* help, double value, std::vector<StatLabel> labels = {}) {
    samples.push_back({name, help, true, value, std::move(labels)});
  }
};

}  // namespace switchyard::pool
