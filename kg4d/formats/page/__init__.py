"""The page that plays moving Gaussians in a browser: what it shows, how that is packed, and the page itself.

`film` says what is shown, `packing` makes bytes of it, `template` puts them into a page. The page is `page.html` with
`page.css`; `film.js` reads the bytes, `splats.js` draws Gaussians by WebGL 2, `page.js` is the rest.
"""
