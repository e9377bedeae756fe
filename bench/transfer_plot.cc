// The picture: a panel for each fabric, throughput over the size of a write, both axes logarithmic.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "transfer_report.h"

namespace switchyard::bench {
namespace {

constexpr double kPanelWidth = 420, kPanelHeight = 300;
constexpr double kLeft = 70, kTop = 60, kGap = 80, kBottom = 130;
constexpr const char* kColors[] = {"#1f5fa8", "#c4511a", "#2b8a4b", "#7b4aa0", "#8a6d1f", "#555555"};

std::string escape(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<') {
      safe += "&lt;";
    } else if (c == '&') {
      safe += "&amp;";
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string label(double x, double y, std::string_view text, std::string_view more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, more, escape(text));
}

struct Axis {
  double low = 0, high = 1;  // of the logarithm
  double from = 0, to = 1;   // on the picture
  double at(double value) const {
    return high > low ? from + (std::log2(value) - low) / (high - low) * (to - from) : (from + to) / 2;
  }
};

std::string line(const Axis& x, const Axis& y, const std::map<std::uint64_t, const Series*>& points,
                 std::string_view color, std::string_view style) {
  std::string path, marks;
  for (const auto& [bytes, series] : points) {
    const double px = x.at(static_cast<double>(bytes)), py = y.at(series->median() / 1e9);
    path += fmt::format("{:.1f},{:.1f} ", px, py);
    // The range of the repeats.
    marks +=
        fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\"/>\n",
                    px, y.at(std::max(series->low() / 1e9, 1e-6)), y.at(series->high() / 1e9), color);
  }
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" {}/>\n{}", path,
                     color, style, marks);
}

}  // namespace

std::string to_svg(const TransferReport& report) {
  std::set<std::uint64_t> sizes;
  std::set<std::uint32_t> depths;
  double low = 1e9, high = 0;
  std::vector<const TransferReport::Fabric*> panels;
  for (const TransferReport::Fabric& fabric : report.fabrics) {
    bool any = false;
    for (const TransferRow& row : fabric.rows) {
      if (row.kind != TransferRow::Kind::writes || row.counter) continue;
      any = true;
      sizes.insert(row.bytes);
      depths.insert(row.depth);
      for (const Series* series : {&row.engine, &row.rail, &row.plain}) {
        if (series->empty() || series->median() <= 0) continue;
        low = std::min(low, series->median() / 1e9);
        high = std::max(high, series->high() / 1e9);
      }
    }
    if (any) panels.push_back(&fabric);
  }
  const double width = kLeft + std::max<double>(1, static_cast<double>(panels.size())) * (kPanelWidth + kGap);
  const double height = kTop + kPanelHeight + kBottom;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, height);
  svg += label(kLeft, 20, "Writes between two processes, without counter", "font-size=\"15\"");
  if (panels.empty()) return svg + label(kLeft, kTop, "nothing was measured") + "</svg>\n";

  Axis y{std::floor(std::log2(low)), std::ceil(std::log2(high)), kTop + kPanelHeight, kTop};
  double left = kLeft;
  for (const TransferReport::Fabric* fabric : panels) {
    const Axis x{std::log2(static_cast<double>(*sizes.begin())),
                 std::log2(static_cast<double>(*sizes.rbegin())), left, left + kPanelWidth};
    svg += label(left + kPanelWidth / 2, kTop - 12, fabric->name,
                 "text-anchor=\"middle\" font-weight=\"bold\" font-size=\"14\"");
    for (double power = y.low; power <= y.high; ++power) {
      const double value = std::exp2(power), at = y.at(value);
      svg += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n",
                         left, left + kPanelWidth, at, at);
      svg += label(left - 6, at + 4, fmt::format("{:.3g}", value), "text-anchor=\"end\"");
    }
    for (const std::uint64_t bytes : sizes) {
      const double at = x.at(static_cast<double>(bytes));
      svg += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#eee\"/>\n",
                         at, at, kTop, kTop + kPanelHeight);
      svg +=
          label(at, kTop + kPanelHeight + 16, size_text(bytes),
                sizes.size() > 7 ? fmt::format("text-anchor=\"end\" transform=\"rotate(-35 {:.1f} {:.1f})\"",
                                               at, kTop + kPanelHeight + 16)
                                 : "text-anchor=\"middle\"");
    }
    svg += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"none\" "
        "stroke=\"#888\"/>\n",
        left, kTop, kPanelWidth, kPanelHeight);
    svg += label(left + kPanelWidth / 2, kTop + kPanelHeight + 46, "bytes of one write",
                 "text-anchor=\"middle\"");
    svg += label(left - 48, kTop + kPanelHeight / 2, "GB/s",
                 fmt::format("text-anchor=\"middle\" transform=\"rotate(-90 {:.1f} {:.1f})\"", left - 48,
                             kTop + kPanelHeight / 2));
    std::size_t color = 0;
    for (const std::uint32_t depth : depths) {
      std::map<std::uint64_t, const Series*> engine, rail, plain;
      for (const TransferRow& row : fabric->rows) {
        if (row.kind != TransferRow::Kind::writes || row.counter || row.depth != depth) continue;
        if (!row.engine.empty()) engine[row.bytes] = &row.engine;
        if (!row.rail.empty()) rail[row.bytes] = &row.rail;
        if (!row.plain.empty()) plain[row.bytes] = &row.plain;
      }
      const char* const ink = kColors[color++ % std::size(kColors)];
      svg += line(x, y, plain, ink, "stroke-dasharray=\"2 4\"");
      svg += line(x, y, rail, ink, "stroke-dasharray=\"8 4\"");
      svg += line(x, y, engine, ink, "");
    }
    left += kPanelWidth + kGap;
  }
  // What the lines are, once for all panels.
  double at = kLeft;
  const double row = kTop + kPanelHeight + 84;
  std::size_t color = 0;
  for (const std::uint32_t depth : depths) {
    const char* const ink = kColors[color++ % std::size(kColors)];
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"10\" fill=\"{}\"/>\n", at,
                       row - 9, ink);
    svg += label(at + 20, row, fmt::format("{} under way", depth));
    at += 130;
  }
  at = kLeft;
  for (const auto& [style, text] :
       {std::pair("", "engine"), std::pair("stroke-dasharray=\"8 4\"", "bare rail"),
        std::pair("stroke-dasharray=\"2 4\"", "libfabric")}) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#222\" stroke-width=\"2\" "
        "{}/>\n",
        at, at + 36, row + 20, row + 20, style);
    svg += label(at + 42, row + 24, text);
    at += 130;
  }
  return svg + "</svg>\n";
}

}  // namespace switchyard::bench
